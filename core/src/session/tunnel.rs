#![allow(missing_docs, unused)]
use super::*;
use crate::wire::*;
#[derive(Debug)]
pub struct Tunnel;
pub struct Opened<'a> {
    pub lane: Lane,
    pub counter: u64,
    pub payload: &'a mut [u8],
    pub flags: Flags,
}
#[derive(Debug)]
pub enum OpenError {
    Malformed,
    Authentication,
    Replay,
    Exhausted,
}
#[derive(Debug)]
pub struct Exhausted;
impl Tunnel {
    pub fn new(
        send: &[u8; 32],
        receive: &[u8; 32],
        cipher: Cipher,
        crypto: &dyn CryptoBackend,
        local: u32,
        remote: u32,
    ) -> Tunnel {
        loop {}
    }
    pub fn local_index(&self) -> u32 {
        0
    }
    pub fn needs_rekey(&self) -> bool {
        false
    }
    pub fn reserve(&self, lane: Lane, n: u64) -> Result<u64, Exhausted> {
        Ok(0)
    }
    pub fn seal(&self, kind: EnvelopeType, lane: Lane, csum: bool, datagram: &mut [u8]) -> Result<u64, Exhausted> {
        Ok(0)
    }
    pub fn seal_packet(&self, lane: Lane, counter: u64, csum: bool, datagram: &mut [u8]) {}
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        loop {}
    }
    pub fn received(&self, lane: Lane) -> Option<(u64, u64)> {
        None
    }
}
