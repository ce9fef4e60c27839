# SPDX-License-Identifier: Apache-2.0
"""What is common to all that a desk can ask: believing an event, answering it once, keeping apart what is not believed."""
