//! The sink `kafka`.
