#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""demo/side.py: which jobs are cut off, and what the next data set is.  Prints TAP."""
import os
import sys
import unittest

sys.dont_write_bytecode = True
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [f"{TOP}/demo", f"{TOP}/tests/guest"]
from jobs import progress_in  # noqa: E402
from chart import history  # noqa: E402
from side import BUDGET, Job, Pace, LEAST_LIMIT, MOST_LIMIT  # noqa: E402


def job(*progress):
    """A job of which a sample a second is given."""
    made = Job(0, 16)
    made.progress = list(enumerate(progress))
    return made


class Demo(unittest.TestCase):
    def test_a_stuck_job_thrashes(self):
        self.assertTrue(job(*range(0, 45, 3), *[45] * 21).thrashes())

    def test_a_crawling_job_thrashes(self):
        self.assertTrue(job(*range(0, 90, 4), *[90] * 19, 91, 92).thrashes())

    def test_a_job_that_never_began_thrashes(self):
        self.assertFalse(job(*[0] * 20).thrashes())
        self.assertTrue(job(*[0] * 21, 0).thrashes())

    def test_a_job_that_slowed_down_does_not(self):
        self.assertFalse(job(*range(0, 60, 3), *range(60, 80)).thrashes())

    def test_a_short_pause_is_no_thrashing(self):
        self.assertFalse(job(*range(0, 45, 3), *[45] * 18).thrashes())

    def test_a_slow_machine_is_no_thrashing(self):
        self.assertFalse(job(*[second // 10 for second in range(900)]).thrashes())

    def test_progress_is_the_last_that_was_told(self):
        self.assertEqual(progress_in("Linux\nkvjob: 3 of 100\nkvjob: 44 of 100\nkvjob: 4"), 44)
        self.assertEqual(progress_in("workset: 100 of 100\n"), 100)
        self.assertEqual(progress_in(""), 0)

    def test_history_shows_where_leases_were(self):
        rows = history([(0, 0, 0, 0, 4, 4, 4), (5, 9, 0, 0, BUDGET, 0, 0),
                        (10, 0, 9, 0, 0, BUDGET, 0)], columns=10).splitlines()
        self.assertEqual([row.count("@") for row in rows], [1, 0, 1, 0, 0, 0, 0])
        self.assertLess(rows[0].index("@"), rows[2].index("@"))
        self.assertRegex(rows[1], r"held +\|     \.    \|")

    def test_pace(self):
        pace, done = Pace(), job(0)
        self.assertEqual(pace.limit(), MOST_LIMIT)
        done.seconds = 100
        pace.done(done)
        self.assertEqual(pace.limit(), MOST_LIMIT)      # it was not verified
        done.ok = True
        pace.done(done)
        self.assertEqual(pace.limit(), 200)
        pace = Pace()
        done.seconds = 1
        pace.done(done)
        self.assertEqual(pace.limit(), LEAST_LIMIT)


tap.main(Demo)
