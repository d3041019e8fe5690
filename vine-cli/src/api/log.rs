//! The log and the key-value view.
//!
//! Streams are lines of JSON. A line `{"error": ...}` ends one that could not be brought to its end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ErrorDetail;

/// Bytes of an application: a string where they are UTF-8 text, else `{"base64": "..."}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Bytes);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BlobForm<'a> {
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
    Base64 { base64: String },
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match std::str::from_utf8(&self.0) {
            Ok(text) => BlobForm::Text(text.into()),
            Err(_) => BlobForm::Base64 { base64: STANDARD.encode(&self.0) },
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BlobForm::deserialize(deserializer)? {
            BlobForm::Text(text) => Ok(Blob(Bytes::from(text.into_owned()))),
            BlobForm::Base64 { base64 } => match STANDARD.decode(&base64) {
                Ok(bytes) => Ok(Blob(bytes.into())),
                Err(error) => Err(de::Error::custom(format!("this is no base64: {error}"))),
            },
        }
    }
}

/// Ops to write; they stay together and in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AppendRequest {
    pub(crate) ops: Vec<Blob>,
}

/// Where ops lie that are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The log, in hexadecimal digits.
    pub(crate) log: String,
    /// The number of the first op in its log; the others follow.
    pub(crate) first_seq: u64,
    /// The number of the first op among all that this store took.
    pub(crate) first_ordinal: u64,
    /// How many ops.
    pub(crate) count: u32,
}

/// Which ops are wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TailRequest {
    /// The first ordinal.
    #[serde(default)]
    pub(crate) from: u64,
    /// Go on with what is written later.
    #[serde(default)]
    pub(crate) follow: bool,
}

/// A line of a stream of ops.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TailLine {
    Op(LogOp),
    Damaged { damaged: Damaged },
    Error { error: ErrorDetail },
}

/// An op.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogOp {
    /// Its number in the order in which this store took ops.
    pub(crate) ordinal: u64,
    /// Its log, in hexadecimal digits.
    pub(crate) log: String,
    /// Its number in the log: `log` and `seq` name it on every node.
    pub(crate) seq: u64,
    /// The peer id of who wrote it.
    pub(crate) author: String,
    /// The author's name, where the configuration knows it.
    pub(crate) author_name: Option<String>,
    /// The author's wall clock, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The author's hybrid clock: milliseconds and counter.
    pub(crate) hlc: String,
    /// `plain`, `put`, `delete`, or the number of a kind that this version does not know.
    pub(crate) kind: String,
    /// Of a put or delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Blob>,
    /// Of a put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Blob>,
    /// Of everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Blob>,
}

/// Ops that cannot be read any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Damaged {
    pub(crate) first_ordinal: u64,
    pub(crate) last_ordinal: u64,
    /// The file, and the bytes in it: the first one, and the first one behind them.
    pub(crate) file: String,
    pub(crate) bytes: [u64; 2],
    pub(crate) message: String,
}

/// A key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyRequest {
    pub(crate) key: Blob,
}

/// A key with its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: Blob,
    pub(crate) value: Blob,
}

/// Which keys are wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListRequest {
    /// What they begin with.
    #[serde(default)]
    pub(crate) prefix: Blob,
    /// Only keys behind this one.
    #[serde(default)]
    pub(crate) after: Option<Blob>,
}

/// Some keys with their values, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether there may be more behind them.
    pub(crate) more: bool,
    /// This is how it was after all ops below this ordinal.
    pub(crate) next_ordinal: u64,
}

/// Which changes are wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WatchRequest {
    /// What their keys begin with.
    #[serde(default)]
    pub(crate) prefix: Blob,
    /// The first ordinal; without it only what is written from now on.
    #[serde(default)]
    pub(crate) from: Option<u64>,
}

/// A line of a stream of changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum WatchLine {
    Change(Change),
    Damaged { damaged: Damaged },
    Error { error: ErrorDetail },
}

/// A key was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) ordinal: u64,
    pub(crate) key: Blob,
    /// `null` where it was deleted.
    pub(crate) value: Option<Blob>,
}

/// A line of what a verification says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerifyLine {
    Progress(Progress),
    Report(Verified),
    Error(ErrorDetail),
}

/// How far it is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) bytes: u64,
    pub(crate) total: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verified {
    /// Whether nothing that was durable is lost or damaged.
    pub(crate) sound: bool,
    pub(crate) dir: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) commits: u64,
    pub(crate) ops: u64,
    /// Everything that is not as it should be.
    pub(crate) findings: Vec<Finding>,
    /// Further findings, which are only counted.
    pub(crate) unlisted: u64,
    /// The hash of all that the store holds, in hexadecimal digits: equal where the same logs are held.
    pub(crate) state_hash: String,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) file: String,
    /// The first byte, and the first one behind.
    pub(crate) bytes: [u64; 2],
    pub(crate) what: String,
    /// Whether something that was durable is lost by it.
    pub(crate) lost: bool,
    /// The first and the last ordinal that is missing, as far as that is known.
    pub(crate) ordinals: Option<[u64; 2]>,
    /// The positions that are missing.
    pub(crate) positions: Vec<Positions>,
    /// All of it as a sentence.
    pub(crate) message: String,
}

/// Positions of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    pub(crate) log: String,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

/// What an archive lacks, because it cannot be read or continues what cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// How many ops, as far as they are known.
    pub(crate) ops: u64,
    /// The first damage.
    pub(crate) why: String,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Imported {
    /// Records that are new: beginnings of logs, and commits.
    pub(crate) new: u64,
    /// Those that were here already.
    pub(crate) known: u64,
    /// Those so far behind the end of their log that they were not compared with what is here. Nothing of them was taken.
    pub(crate) uncompared: u64,
}

/// Why an archive was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImportRefused {
    pub(crate) error: ErrorDetail,
    /// The number of the record in what was sent, from 0.
    pub(crate) record: Option<u64>,
    /// What was taken before: an archive of more records than one import takes goes in one part after the other.
    pub(crate) imported: Imported,
}

/// How the log is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogStatus {
    /// `off`, `opening`, `open`, `full`, `stopped`, `failed` or `closed`.
    pub(crate) state: String,
    /// Why it is not open, or takes no writes, and what to do.
    pub(crate) error: Option<String>,
    pub(crate) dir: String,
    /// Bytes of all files.
    pub(crate) bytes: Option<u64>,
    pub(crate) max_bytes: u64,
    /// Logs: the own ones, one for each start that wrote, and those of others.
    pub(crate) logs: Option<usize>,
    /// Ops; the ordinal of the next one.
    pub(crate) ops: Option<u64>,
    /// Writes that wait for the disk.
    pub(crate) waiting: Option<usize>,
    /// How often a file was synced since the start, and how long the last one took.
    pub(crate) syncs: Option<u64>,
    pub(crate) last_sync_ms: Option<f64>,
    /// Seconds since then.
    pub(crate) last_sync_age_s: Option<f64>,
    /// Memory of the key-value view.
    pub(crate) view_bytes: Option<usize>,
    pub(crate) max_view_bytes: usize,
    /// Whether the view has reached its limit and does not say any more what the log does.
    pub(crate) view_is_full: bool,
    /// Requests that were refused since the start.
    pub(crate) refusals: u64,
    /// What was found when the log was opened.
    pub(crate) findings: Vec<Finding>,
    /// Further findings, which are only counted.
    pub(crate) unlisted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_base64() {
        for (bytes, json) in
            [(&b"text \"\n"[..], r#""text \"\n""#), (b"", r#""""#), (b"\xff\x00", r#"{"base64":"/wA="}"#)]
        {
            let blob = Blob(Bytes::from_static(bytes));
            assert_eq!(serde_json::to_string(&blob).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), blob);
        }
        assert!(serde_json::from_str::<Blob>(r#"{"base64":"?"}"#).unwrap_err().to_string().contains("no base64"));
    }
}
