# SPDX-License-Identifier: Apache-2.0
"""Who does it: the Celery application, its roles, and the operator's command line."""
