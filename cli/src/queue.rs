//! What exists and has no ring: queues, and where the sides of `auto:` meet.

use ringway::transport::Listed;
use serde::Serialize;

use crate::place;

/// A queue, as `ls --json` prints it. The names of the fields are part of the interface: see `docs/cli.md`.
#[derive(Serialize)]
pub struct Queue {
    pub address: String,
    pub kind: &'static str,
    pub size: Option<u64>,
    pub mode: Option<String>,
    pub uid: Option<u32>,
    pub owner: Option<String>,
    /// There is none that could be seen from outside.
    pub problem: Option<&'static str>,
    pub depth: Option<u64>,
}

impl From<Listed> for Queue {
    fn from(listed: Listed) -> Self {
        Self {
            address: listed.address.to_string(),
            kind: listed.address.target().scheme(),
            size: listed.size,
            mode: listed.mode.map(|mode| format!("{mode:04o}")),
            uid: listed.uid,
            owner: listed.uid.and_then(place::user),
            problem: None,
            depth: listed.messages,
        }
    }
}

impl Queue {
    /// As a line of JSON.
    pub fn json(&self) -> String {
        let mut line = serde_json::to_string(self).expect("it has only string keys and cannot fail");
        line.push('\n');
        line
    }
}
