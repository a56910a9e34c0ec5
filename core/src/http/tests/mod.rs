//! What the rows of `docs/HTTP.md` ask for, as tables: each case names its row.
