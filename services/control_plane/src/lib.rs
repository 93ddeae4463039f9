//! control_plane.
