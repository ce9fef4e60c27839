# SPDX-License-Identifier: Apache-2.0
"""The embedded default behind `bookdrop up`: broker, workers, Flower and a station on one machine, in one folder."""
