# SPDX-License-Identifier: Apache-2.0
"""The cycle around the Return: receive, loan, discharge, complete."""
