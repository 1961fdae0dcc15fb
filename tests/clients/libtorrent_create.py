#!/usr/bin/python3
"""Makes a v1 torrent with libtorrent, files in byte order of their paths; or a hybrid.

usage: libtorrent_create.py PATH TORRENT PIECE_BYTES [hybrid]
"""

import os
import sys

import libtorrent

path, torrent_path, piece_bytes, *version = sys.argv[1:]
path = os.path.normpath(path)
parent, name = os.path.split(path)
storage = libtorrent.file_storage()
if os.path.isdir(path):
    found = []
    for folder, _, files in os.walk(path):
        for file in files:
            found.append(os.path.relpath(os.path.join(folder, file), parent))
    for file in sorted(found, key=os.fsencode):
        storage.add_file(file, os.path.getsize(os.path.join(parent, file)))
else:
    storage.add_file(name, os.path.getsize(path))
flags = 0 if version == ["hybrid"] else libtorrent.create_torrent.v1_only
creator = libtorrent.create_torrent(storage, int(piece_bytes), flags)
libtorrent.set_piece_hashes(creator, parent)
with open(torrent_path, "wb") as out:
    out.write(libtorrent.bencode(creator.generate()))
