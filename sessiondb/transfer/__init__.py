"""Transcripts in and out of the database as files.

    importer                      import_path: drives an import
    migrate, at_rest              migrate: a whole home of OpenClaw. Whether it is at rest
    folder_scan                   which files a folder holds, by name
    import_plan, import_packs     what happens to each file. Files read into transactions
    import_run, import_index      the receipts in the making. The keys of an index
    source                        the rules over `import_file` and `quarantine`
    early_lines                   entries that stand before their parents
    jsonl_reader, jsonl_writer    bytes to entries, and back
    openclaw_index                `sessions.json`, row by row
    openclaw_home                 what OpenClaw demands of the files of an export
    openclaw_sqlite               an agent's database, as the files that it stands for
    recognition                   whose a file is, by its first lines
    exporter                      export: sessions to files
    export_plan, export_index     which files, and the index files
    export_content, export_files  the bytes of a file. The file itself
    export_small                  ... of several small ones at once
    reading                       ... for people and their programs: HTML, Markdown, tables
    roundtrip                     an import compared with its file
    redaction                     secrets removed. What to look for, and what to look at:
    redaction_rules               the rules here, those of gitleaks, a user's own
    redaction_text                a text with its escapes decoded
    unredacted                    secrets that an earlier import stored
    progress                      the callback of import and export

`importer` and `exporter` are the doors. The package knows `transcript`, and neither the gateway
nor maintenance.
"""
