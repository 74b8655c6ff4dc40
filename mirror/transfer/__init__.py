"""Moving bytes: `up` from a site into packs, `down` from packs into a tree. Batches are plain values; their functions run in
any process."""
