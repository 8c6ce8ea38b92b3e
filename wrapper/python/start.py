"""Entry of the worker process; kept tiny because a script is compiled at each start."""

if __name__ == "__main__":
    from racetrack_worker.main import main

    main()
