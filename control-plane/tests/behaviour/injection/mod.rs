//! A2, I6: what a stranger writes is a value and never anything else: a file for each thing that it is not.

mod formula;
mod header;
mod log;
mod names;
mod path;
mod sql;
mod ssrf;

/// What strangers write who want to be more than read.
pub const HOSTILE: [&str; 16] = [
    "' OR '1'='1",
    "'; DROP TABLE flow; --",
    "1; SELECT pg_sleep(60)",
    "1) UNION SELECT token_sha256, 1 FROM sensor --",
    "\\' UNION SELECT token_sha256 FROM sensor --",
    "$1",
    "$$;SELECT 1;$$",
    "%27%20OR%201=1",
    "%' ESCAPE '!",
    "../../../etc/passwd",
    "..%2f..%2fapi",
    "x\r\nset-cookie: a=b",
    "x\n{\"level\":\"ERROR\"}",
    "{{7*7}}${7*7}",
    "=cmd|' /C calc'!A0",
    "\u{202e}\u{0}\u{7f}",
];
