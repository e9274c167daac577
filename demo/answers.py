"""Whether a server answers: `python -m demo.answers URL` ends with 0 if it lists its models, else with 1."""

from __future__ import annotations

import sys

import httpx2


def main() -> int:
    try:
        reply = httpx2.get(f"{sys.argv[1].rstrip('/')}/models", timeout=5, trust_env=False)
    except httpx2.HTTPError:
        return 1
    return 0 if reply.status_code == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
