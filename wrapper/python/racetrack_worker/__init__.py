"""What runs in a job's worker process: loads the user's class and serves the ring.

Started by the front as `python3 -S -P start.py …`; imports are chosen for a quick start (no re, inspect, typing, json).
"""
