//! Connections on a shard.
