#!/usr/bin/python3
"""The house's rules (docs/development.md): who includes whom, what may be spoken where, how long a file and a function may be.

Prints FILE:LINE: what is wrong; exits 1 when there is something. `utils/house.py --self-test` breaks every rule once.
"""

import re
import subprocess
import sys
from pathlib import Path

FILE_LINES = 700
FUNCTION_LINES = 80

# Rooms of libtrack, lowest first: a room includes itself and those before it.
LIBTRACK = ["base", "data", "metrics", "auth", "manifest", "config", "sandbox", "http", "oci", "source", "pg"]
SERVICES = ["lifecycle", "image_builder", "pub", "wrapper", "client", "dashboard"]
# Rooms of lifecycle and what each may include; "" is lifecycle.h and config.h beside them.
LIFECYCLE = {
    "domain": set(),
    "store": {"domain"},
    "auth": {"domain", "store"},
    "infra": {"domain"},
    "deploy": {"domain", "store", "auth", "infra", ""},
    "supervisor": {"domain", "store", "infra", "deploy", ""},
    "api": {"domain", "store", "auth", "deploy", "supervisor", ""},
    "": {"domain", "store", "auth", "infra", "deploy", "supervisor", "api"},
}
# Rooms of image_builder: builds know the stores by build/depot.h alone, so that they can run elsewhere.
IMAGE_BUILDER = {"build": {""}, "store": {"build"}, "api": {"build", "store", ""}, "": {"api", "build", "store"}}
# Who may include a library's header.
LIBRARIES = {
    r"libpq-fe\.h": ["libtrack/pg/"],
    r"microhttpd\.h": ["libtrack/http/"],
    r"curl/.*": ["libtrack/http/"],
    r"jwt\.h": ["libtrack/auth/"],
    r"archive(_entry)?\.h": ["libtrack/oci/"],
    r"yaml\.h": ["libtrack/data/"],
    r"Python\.h": ["wrapper/python/"],
}
SQL = re.compile(r'"\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|WITH \w+ AS|LOCK TABLE|CREATE (TABLE|INDEX))\b')
SQL_PLACES = ("lifecycle/store/", "libtrack/pg/", "tests/")
ATOMIC = re.compile(r"\b__(atomic|sync)_\w+\(")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')


def room_of(path):
    """("libtrack", "base"), ("lifecycle", "store"), ("lifecycle", "") …"""
    parts = path.split("/")
    return parts[0], parts[1] if len(parts) > 2 else ""


def check_include(path, header):
    area, room = room_of(path)
    for pattern, places in LIBRARIES.items():
        if re.fullmatch(pattern, header) and not path.startswith(tuple(places)):
            return f"{header} is for {' and '.join(places)} only"
    target, target_room = room_of(header)
    if target not in ["libtrack", *SERVICES]:
        return None
    if area in SERVICES and target in SERVICES and target != area:
        return f"{area} includes nothing of {target}: services speak HTTP"
    if area == "libtrack":
        if target != "libtrack":
            return f"libtrack includes nothing of {target}"
        if room not in LIBTRACK or target_room not in LIBTRACK:
            return f"a room that utils/house.py does not name: {room or target_room}"
        if LIBTRACK.index(target_room) > LIBTRACK.index(room):
            return f"libtrack/{room} is below libtrack/{target_room}"
    if area == target == "lifecycle" and room != target_room and target_room not in LIFECYCLE[room]:
        return f"lifecycle/{room} includes nothing of lifecycle/{target_room or 'lifecycle.h, config.h'}"
    if area == target == "image_builder" and room != target_room and target_room not in IMAGE_BUILDER[room]:
        return f"image_builder/{room} includes nothing of image_builder/{target_room or 'image_builder.h'}"
    if (area, room, target_room) == ("image_builder", "store", "build") and header != "image_builder/build/depot.h":
        return "image_builder/store knows of builds what is in build/depot.h"
    return None


def check_functions(path, lines):
    """A function begins at column 0 with a line (or lines) that end in ')' before '{' at column 0, and ends at '}' at column 0."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            begin = number
        elif line.startswith("}") and begin is not None:
            if line.strip() == "}" and number - begin + 1 > FUNCTION_LINES:
                yield begin, f"a function of {number - begin + 1} lines (at most {FUNCTION_LINES})"
            begin = None


def check_file(path, text):
    lines = text.splitlines()
    if len(lines) > FILE_LINES and not path.startswith("tests/"):
        yield 1, f"{len(lines)} lines (at most {FILE_LINES}): more than one idea?"
    for number, line in enumerate(lines, 1):
        found = INCLUDE.match(line)
        if found and not path.startswith("tests/"):
            wrong = check_include(path, found[1])
            if wrong:
                yield number, wrong
        if ATOMIC.search(line):
            yield number, "atomics are those of stdatomic.h"
        if SQL.search(line) and not path.startswith(SQL_PLACES):
            yield number, "SQL is for lifecycle/store only"
    if path.endswith(".c") and not path.startswith("tests/"):
        yield from check_functions(path, lines)


TESTED = ["pub", "lifecycle/deploy", "lifecycle/supervisor", "lifecycle/store"]
TEST_ROW = re.compile(r"^\| `([a-z_/]+)` \| (.+) \| (.+) \|$")


def check_tests(names, page):
    """Every file of the folders in TESTED stands in the table of docs/development.md, beside a test that is there."""
    named = {}
    for line in page.splitlines():
        row = TEST_ROW.match(line)
        if row and row[1] in TESTED:
            for stem in re.findall(r"`(\w+)`", row[2]):
                named[f"{row[1]}/{stem}.c"] = [t.replace("*", stem) for t in re.findall(r"`(tests/[^`]+)`", row[3])]
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder in TESTED and file.endswith(".c") and file != "main.c" and name not in named:
            yield f"{name}: no test is named for it in docs/development.md"
    for name, tests in named.items():
        if name not in names:
            yield f"docs/development.md: {name} is not there"
        for test in tests:
            if test not in names:
                yield f"docs/development.md: {test} (for {name}) is not there"


def self_test():
    long = "int f(void)\n{\n" + "    x();\n" * FUNCTION_LINES + "}\n"
    broken = {
        "libtrack/base/a.c": '#include "lifecycle/config.h"\n',
        "libtrack/data/a.c": '#include "libtrack/pg/pg.h"\n',
        "libtrack/new/a.c": '#include "libtrack/base/buf.h"\n',
        "pub/a.c": '#include "lifecycle/config.h"\n',
        "lifecycle/infra/a.c": '#include "lifecycle/lifecycle.h"\n',
        "lifecycle/store/a.c": '#include "lifecycle/deploy/work.h"\n',
        "lifecycle/api/a.c": '#include "lifecycle/infra/target.h"\n',
        "image_builder/build/a.c": '#include "image_builder/store/store.h"\n',
        "image_builder/store/a.c": '#include "image_builder/build/build.h"\n',
        "lifecycle/api/b.c": '    "SELECT 1"\n',
        "client/a.c": "#include <curl/curl.h>\n",
        "client/d.c": "__atomic_load_n(&x, __ATOMIC_RELAXED);\n",
        "client/b.c": long,
        "client/c.c": "\n" * (FILE_LINES + 1),
    }
    for path, text in broken.items():
        assert list(check_file(path, text)), f"{path} should have been refused"
    row = "| `pub` | `flow` | `tests/unit/pub/test_*.c` |"
    assert not list(check_tests({"pub/flow.c", "tests/unit/pub/test_flow.c"}, row))
    assert list(check_tests({"pub/flow.c", "pub/new.c", "tests/unit/pub/test_flow.c"}, row))
    assert list(check_tests({"pub/flow.c"}, row)) and list(check_tests({"tests/unit/pub/test_flow.c"}, row))
    whole = {
        "lifecycle/api/a.c": '#include "lifecycle/store/job.h"\n#include "lifecycle/config.h"\n',
        "lifecycle/store/a.c": '    "SELECT 1"\n#include "libtrack/pg/pg.h"\n',
        "libtrack/oci/a.c": '#include "libtrack/http/http_client.h"\n#include <archive.h>\n',
    }
    for path, text in whole.items():
        assert not list(check_file(path, text)), f"{path} should have passed"


def main():
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        return 0
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h",
                            "tests/e2e/*.py"], capture_output=True, text=True, check=True).stdout.split()
    names = {name for name in names if Path(name).is_file()}
    failed = 0
    for name in sorted(names):
        for number, wrong in check_file(name, Path(name).read_text(encoding="utf-8", errors="replace")) if name.endswith((".c", ".h")) else ():
            print(f"{name}:{number}: {wrong}")
            failed = 1
    for wrong in check_tests(names, Path("docs/development.md").read_text(encoding="utf-8")):
        print(wrong)
        failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
