"""The whole database as a folder of files, and back: see docs/backup.md and docs/adr/0025-dumps.md.

:func:`export_database` writes a dump, :func:`import_database` restores one. A dump holds what the tables hold and no
more: how it is partitioned, indexed or compressed is the database's own affair, so a dump of plain PostgreSQL restores
into TimescaleDB and the reverse.
"""

from astrid.store.dumps.export import export_database
from astrid.store.dumps.manifest import Manifest, read_manifest
from astrid.store.dumps.restore import Restored, import_database

__all__ = ["Manifest", "Restored", "export_database", "import_database", "read_manifest"]
