"""Start of a worker: import path, standard streams, loading, then serving for ever.

argv: RING_FD EVENT_FD CONTROL_FD LIFE_FD PATH CLASS PACKAGES  ("" for an absent CLASS or PACKAGES)
"""

import builtins
import os
import sys

import _racetrack


def main():
    _, ring_fd, event_fd, control_fd, life_fd, path, class_name, packages = sys.argv
    fds = [int(fd) for fd in (ring_fd, event_fd, control_fd, life_fd)]
    for fd in fds:
        os.set_inheritable(fd, False)
    _racetrack.attach(fds[0], fds[1], fds[3])
    set_up_streams()
    set_up_path(path, packages)
    sys.argv = [path]

    from racetrack_worker import load

    try:
        from racetrack_worker import serve

        job = load.load(path, class_name or None)
        announcement = job.announcement()
    except BaseException as e:  # SystemExit of user code included
        error = load.failure_text(e)
        sys.stdout.write(f"{error.rstrip()}\n")
        send(fds[2], {"kind": "failed", "error": error})
        os._exit(1)  # not blocked by threads that user code has started
    serve.start_spare(job)
    if job.has_async:
        serve.start_loop()
    send(fds[2], announcement)
    serve.serve(job)


def send(fd, message):
    from racetrack_worker.encode import to_json

    data = to_json(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def set_up_streams():
    # Whole lines at once, so that threads do not mix within a line and a crash loses none.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
        except (AttributeError, ValueError, OSError):
            pass


def set_up_path(path, packages):
    own = sys.path[0] if sys.path and sys.path[0].endswith("racetrack_job") else os.path.dirname(os.path.dirname(__file__))
    # The host's packages are none of the job's: what it needs is in its image.
    sys.path[:] = [p for p in sys.path if p and p != own and os.path.basename(p) != "dist-packages"]
    here = os.getcwd()
    front = [here]
    folder = os.path.dirname(os.path.abspath(path))
    if folder != here:
        front.append(folder)
    if packages:
        front.append(os.path.abspath(packages))
    sys.path[0:0] = front
    if sys.flags.no_site:
        builtins.exit = builtins.quit = leave
        if packages and has_pth(packages):
            import site

            site.addsitedir(packages)
    sys.path.append(own)


def has_pth(folder):
    try:
        return any(name.endswith(".pth") for name in os.listdir(folder))
    except OSError:
        return False


def leave(code=None):
    raise SystemExit(code)
