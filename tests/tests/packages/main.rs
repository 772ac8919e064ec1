//! The packages, as a distribution's own tools install, upgrade and remove them. `make test-packages`
//! builds what this needs and runs it.

mod built;
mod deb;
mod rpm;
mod scene;
