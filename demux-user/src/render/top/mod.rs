//! The live view: on a screen, as text, and as JSON.

mod amount;
mod columns;
mod details;
mod document;
mod header;
mod layout;
mod screen;
mod text;

pub use self::{document::write_top_document, screen::draw_top, text::write_top_text};
