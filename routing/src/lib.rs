//! Which site a Host means and which backend serves a site: pure functions.
