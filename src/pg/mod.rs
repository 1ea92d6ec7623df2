//! Everything that is true of any Postgres session, whatever it is used for.
