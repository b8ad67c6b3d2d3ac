//! Input that means harm, refused: one file for each place where it comes in, tests named after the rows of the list of
//! attacks that they hold.

mod body;
mod connection;
mod list;
mod object;
mod path;
mod secret;
