# SPDX-License-Identifier: Apache-2.0
"""The Celery worker's parts: consumer, batching, events, beat, and workarounds for defects of Celery and kombu."""
