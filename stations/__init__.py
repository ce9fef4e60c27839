# SPDX-License-Identifier: Apache-2.0
"""The station: its prompt, its journal, and the client that sends each scan and receives the reply."""
