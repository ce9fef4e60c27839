# SPDX-License-Identifier: Apache-2.0
"""Circulation around the Return: receive, loan, discharge, complete."""
