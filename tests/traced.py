"""Whether everything in a database names a run that there is."""

from __future__ import annotations

import asyncpg

TRACED = {
    "observation": "SELECT * FROM observation WHERE run_id NOT IN (SELECT run_id FROM run)",
    "observation_revision": "SELECT * FROM observation_revision WHERE run_id NOT IN (SELECT run_id FROM run) "
    "OR superseded_by_run NOT IN (SELECT run_id FROM run)",
    "score": "SELECT * FROM score WHERE run_id NOT IN (SELECT run_id FROM run)",
    "score_revision": "SELECT * FROM score_revision WHERE run_id NOT IN (SELECT run_id FROM run) "
    "OR superseded_by_run NOT IN (SELECT run_id FROM run)",
    "identity": "SELECT * FROM identity WHERE run_id NOT IN (SELECT run_id FROM run)",
    "gap": "SELECT * FROM gap WHERE run_id IS NULL OR run_id NOT IN (SELECT run_id FROM run) "
    "OR (healed_at IS NULL) <> (healed_run IS NULL) OR healed_run NOT IN (SELECT run_id FROM run)",
    "batch": "SELECT * FROM batch WHERE run_id NOT IN (SELECT run_id FROM run)",
}
"""Per table the rows that lead to no run."""


async def untraced(url: str) -> dict[str, tuple[int, int]]:
    """Return per table (rows, rows without a run)."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: (
                await connection.fetchval(f"SELECT count(*) FROM {table}"),
                await connection.fetchval(f"SELECT count(*) FROM ({query}) lost"),
            )
            for table, query in TRACED.items()
        }
    finally:
        await connection.close()
