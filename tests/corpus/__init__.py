"""Real input: Debian's rust-doc and five releases of the npm package next."""
