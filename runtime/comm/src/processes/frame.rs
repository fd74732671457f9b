//! A frame: one message between processes, as bytes on a connection.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::report::End;
use crate::{Standing, Waiting};

/// Nothing that ranks tell each other is larger.
pub const LONGEST: u32 = 1 << 28;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Frame {
    pub to: To,
    pub message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    Hub,
    Rank(usize),
    Others,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// The first on a connection.
    Hello {
        rank: usize,
        world: usize,
    },
    /// The sender is alive.
    Pulse,
    /// To rank 0, which answers all with `Gathered` when it has one of each; without `share`, it keeps them to itself.
    Contribution {
        what: String,
        from: usize,
        bytes: Vec<u8>,
        share: bool,
    },
    Gathered {
        what: String,
        all: Vec<Vec<u8>>,
    },
    /// To rank 0: the sender gets on with what it does by itself.
    Working {
        from: usize,
    },
    /// Of rank 0: it waits for others in a meeting, and sees that they work.
    Watching,
    /// Where are you, and what do you wait for?
    Question {
        from: usize,
    },
    Answer {
        from: usize,
        standing: Standing,
        waiting: Vec<Waiting>,
    },
    Ended(End),
    /// The rank runs no more collectives.
    Left {
        rank: usize,
    },
    /// The rank's process ends, and has met all others for the last time.
    Farewell {
        rank: usize,
    },
}

impl Frame {
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).ok().filter(|l| *l <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other(format!("a message of {} bytes", bytes.len())))?;
        let mut all = Vec::with_capacity(bytes.len() + 4);
        all.extend(length.to_le_bytes());
        all.extend(bytes);
        to.write_all(&all)
    }

    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut bytes = Vec::new();
        from.take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        postcard::from_bytes(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_damage_is_an_error() {
        let message = Message::Contribution { what: "plan".into(), from: 3, bytes: vec![1, 2, 3], share: true };
        let mut bytes = Vec::new();
        Frame { to: To::Rank(0), message }.write(&mut bytes).expect("written");
        let back = Frame::read(&bytes[..]).expect("read");
        assert!(matches!(back.message, Message::Contribution { from: 3, bytes, .. } if bytes == [1, 2, 3]));
        for length in 0..bytes.len() {
            assert!(Frame::read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Frame::read(&[255; 64][..]).is_err());
    }
}
