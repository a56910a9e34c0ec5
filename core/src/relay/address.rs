//! From an upstream to one of its addresses: looking them up, and trying one after the other.
//!
//! All of it is one attempt to connect, under one connect deadline (C-05 to C-07 of the conformance suite). What
//! each address has of that is in `deadlines.rs`; nothing here looks a name up, or opens a socket.

use core::net::SocketAddr;

use crate::error::{Error, IoFailure, IoKind};
use crate::relay::Relay;
use crate::relay::exchange::{Exchange, Stage};
use crate::relay::outcome::{Env, Step};
use crate::timeout::DeadlineKind;
use crate::upstream::Addresses;

impl Exchange {
    /// The address whose turn it is.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.addresses.as_ref()?.get(self.address.into())
    }

    /// How many addresses have not failed, the one whose turn it is among them.
    pub(crate) fn untried_addresses(&self) -> u32 {
        let all = self.addresses.as_ref().map_or(0, Addresses::len) as u32;
        all.saturating_sub(self.address.into())
    }

    /// Whether there is another after the one whose turn it is.
    pub(crate) fn has_next_address(&self) -> bool {
        self.untried_addresses() > 1
    }
}

impl Relay {
    /// No idle connection: one is to be made.
    pub(crate) fn dial(&mut self, env: &mut Env<'_>) {
        let Some(id) = self.exchange.upstream else { return };
        self.exchange.addresses = None;
        self.exchange.reused = false;
        self.exchange.attempts = self.exchange.attempts.saturating_add(1);
        self.begin(Stage::Resolving, Step::Resolve(id), env);
    }

    /// It is known where the upstream is, or that it is not.
    pub(crate) fn begin_addresses(&mut self, found: Result<Addresses, IoFailure>, env: &mut Env<'_>) {
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                self.exchange.addresses = Some(addresses);
                self.exchange.address = 0;
                self.dial_address(env);
            }
            Ok(_) => {
                let failure = IoFailure { kind: IoKind::NotFound, os_code: None };
                self.connect_failed(Error::Resolve(failure), env);
            }
            Err(failure) => self.connect_failed(Error::Resolve(failure), env),
        }
    }

    /// The address whose turn it is. What remains of the connect deadline is shared out anew.
    fn dial_address(&mut self, env: &mut Env<'_>) {
        let Some(id) = self.exchange.upstream else { return };
        self.progress(DeadlineKind::ConnectAddress);
        self.begin(Stage::Connecting, Step::Connect(id), env);
    }

    /// This address cannot be reached in its time: the next one, all within one attempt, or the end of the attempt.
    pub(crate) fn address_failed(&mut self, error: Error, env: &mut Env<'_>) {
        if self.exchange.has_next_address() {
            self.exchange.address += 1;
            self.dial_address(env);
        } else {
            self.connect_failed(error, env);
        }
    }
}
