//! What is wrong with a body, gathered, so that its sender is told all of it at once.

use super::ApiError;
use super::error::FieldError;

/// Faults with their fields. What only one kind of body has is checked beside its route.
#[derive(Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// A text that people read.
    pub fn text(&mut self, field: &str, text: &str, max: usize) {
        if text.chars().count() > max || text.chars().any(char::is_control) {
            self.add(field, format!("has more than {max} characters, or control characters"));
        }
    }

    pub fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::parameters(self.0)) }
    }
}
