//! What a pool and a worker say to each other, through a connection of bytes.

use crate::board::Board;
use crate::items::Parcel;
use polyproc_pipe::{Bytes, Connection};
use polyproc_process::remote::Remote;
use polyproc_value::Array;
use serde::{Deserialize, Serialize};

/// One end of the line between a pool and a worker.
pub(crate) type Line = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// What a worker is started with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Employment {
    pub(crate) line: Line,
    pub(crate) board: Board,
    /// What it calls first.
    pub(crate) initializer: Option<(Remote, Parcel)>,
    /// What makes its state.
    pub(crate) state: Option<(Remote, Parcel)>,
    /// What gives its state back.
    pub(crate) farewell: Option<Remote>,
}

/// What the pool says. A job's items follow, if they are in no slab.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    Run(Job),
    /// Memory for long items or results, from now on known by this number.
    Slab(u32, Array<u8>),
    /// End, when all that came before is done.
    Stop,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) function: Remote,
    pub(crate) epoch: u32,
    /// Of its first unit, from 1.
    pub(crate) number: u64,
    /// How many items.
    pub(crate) count: u32,
    /// How many of them are a unit, which is begun at a time.
    pub(crate) unit: u32,
    /// In which slab the items lie, and how many bytes.
    pub(crate) slab: Option<(u32, u64)>,
    /// In which slab the results may be put, if they are long.
    pub(crate) out: Option<u32>,
}

/// What a worker says, in front of what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    /// How many results follow.
    pub(crate) count: u32,
    pub(crate) job: u64,
    /// For how many nanoseconds it has worked at the job.
    pub(crate) worked: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is initialised.
    Ready,
    /// Its initializer has failed; a text says why.
    Refused,
    /// The next results of a job.
    Part,
    /// The last results of a job.
    Done,
    /// They lie in the job's slab; here is only a number, how many bytes they are.
    DoneInSlab,
    /// Its last state, as an item.
    State,
}

impl Report {
    /// The room that it takes.
    pub(crate) const SIZE: usize = 24;

    pub(crate) fn to_bytes(self) -> [u8; Report::SIZE] {
        let mut bytes = [0; Report::SIZE];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        bytes[16..].copy_from_slice(&self.worked.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Report> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (job, rest) = rest.split_first_chunk::<8>()?;
        let (worked, _) = rest.split_first_chunk::<8>()?;
        let kind = match u32::from_le_bytes(*kind) {
            0 => Kind::Ready,
            1 => Kind::Refused,
            2 => Kind::Part,
            3 => Kind::Done,
            4 => Kind::DoneInSlab,
            5 => Kind::State,
            _ => return None,
        };
        let (job, worked) = (u64::from_le_bytes(*job), u64::from_le_bytes(*worked));
        Some(Report { kind, count: u32::from_le_bytes(*count), job, worked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_back() {
        for kind in [Kind::Ready, Kind::Refused, Kind::Part, Kind::Done, Kind::DoneInSlab, Kind::State] {
            let report = Report { kind, count: 7, job: u64::MAX, worked: 1 << 40 };
            assert_eq!(Report::read(&report.to_bytes()), Some(report));
        }
        assert_eq!(Report::read(&[0; 23]), None);
        assert_eq!(Report::read(&[6; 24]), None);
    }
}
