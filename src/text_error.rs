//! Errors that are one line of text.

/// Defines an error type around a text, which its module makes, and those that it lets.
macro_rules! text_error {
    ($(#[$attribute:meta])* $name:ident($visibility:vis String)) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name($visibility String);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::error::Error for $name {}
    };
}
