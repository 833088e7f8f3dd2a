//! How a [`Connection`] travels to another process.

use super::Connection;
use crate::end::{End, Kinds, Ticket, shape};
use core::alloc::Layout;
use polyproc_memory::codec::Codec;
use polyproc_memory::{Object, handover};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn kinds(sends: Layout, receives: Layout) -> Kinds {
    [sends, receives].map(|layout| (layout.size() as u64, layout.align() as u64))
}

/// The region, as part of a larger message.
struct Region(Object);

impl Serialize for Region {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Region, D::Error> {
        Object::deserialize(deserializer, |capacity| shape(capacity, 0)).map(Region)
    }
}

const IN_USE: &str =
    "a Connection travels between two messages only, while no other thread uses it, before it is closed";

/// Only in a hand-over: as an argument of a process, or in a message of another connection.
impl<S, R, C: Codec<S> + Codec<R>> Serialize for Connection<S, R, C> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let kinds = kinds(<C as Codec<S>>::element(), <C as Codec<R>>::element());
        let code = <C as Codec<S>>::CODE;
        let Some((ticket, object, socket)) = self.end.ticket(kinds) else {
            return Err(T::Error::custom(IN_USE));
        };
        let socket = socket.ok_or_else(|| T::Error::custom(handover::NOT_IN_HANDOVER))?;
        (Region(object), socket, code, ticket).serialize(serializer)
    }
}

impl<'de, S, R, C: Codec<S> + Codec<R>> Deserialize<'de> for Connection<S, R, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connection<S, R, C>, D::Error> {
        let (Region(object), socket, code, ticket) = <(Region, u32, u8, Ticket)>::deserialize(deserializer)?;
        if code != <C as Codec<S>>::CODE
            || ticket.kinds != kinds(<C as Codec<S>>::element(), <C as Codec<R>>::element())
        {
            return Err(D::Error::custom("a connection with another codec, or messages of another size"));
        }
        let socket = handover::kept_descriptor(socket).map_err(D::Error::custom)?;
        let end = End::from_ticket(&ticket, object, socket);
        end.map(Connection::new).ok_or_else(|| D::Error::custom("this is no connection's ticket"))
    }
}
