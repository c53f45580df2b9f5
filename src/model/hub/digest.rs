//! What a file must hash to. The hub and its cache call a file by its content: SHA-256 for large files (Git LFS), Git's own
//! SHA-1 of a blob for small ones. So every cached file can be checked without asking anybody.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A content hash as the hub gives it, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentId {
    /// 64 digits: SHA-256 of the content.
    Sha256(String),
    /// 40 digits: SHA-1 of `blob SIZE\0` and the content.
    GitBlob(String),
}

impl FromStr for ContentId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.len() {
            64 if is_hexadecimal(text) => Ok(Self::Sha256(text.to_owned())),
            40 if is_hexadecimal(text) => Ok(Self::GitBlob(text.to_owned())),
            _ => Err(()),
        }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => f.write_str(digits),
        }
    }
}

impl ContentId {
    /// The same kind of hash of `content`, which is `size` bytes long.
    pub(super) fn of(&self, mut content: impl Read, size: u64) -> std::io::Result<Self> {
        match self {
            Self::Sha256(_) => {
                let mut hash = Sha256::new();
                feed(&mut content, |part| hash.update(part))?;
                Ok(Self::Sha256(hexadecimal(&hash.finalize())))
            }
            Self::GitBlob(_) => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {size}\0"));
                feed(&mut content, |part| hash.update(part))?;
                Ok(Self::GitBlob(hexadecimal(&hash.finalize())))
            }
        }
    }
}

/// Whether `text` is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

fn feed(content: &mut impl Read, mut sink: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            n => sink(&buffer[..n]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, it| text + &format!("{it:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let check = |expected: &str| {
            let id: ContentId = expected.parse().unwrap();
            assert_eq!(id.of(b"hello\n".as_slice(), 6).unwrap().to_string(), expected);
        };
        check("ce013625030ba8dba906f756967f9e9ca394464a"); // echo hello | git hash-object --stdin
        check("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"); // echo hello | sha256sum
        for bad in ["", "ce01", "../../../../../../../../../../etc/passwd0", &"G".repeat(64)] {
            assert!(bad.parse::<ContentId>().is_err(), "{bad}");
        }
    }
}
