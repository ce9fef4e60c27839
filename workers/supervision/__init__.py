# SPDX-License-Identifier: Apache-2.0
"""What a supervisor sees of a worker: its node name, its heartbeat file, and its notifications to systemd."""
