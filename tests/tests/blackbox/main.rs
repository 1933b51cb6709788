//! What a user sees of the program, in one binary so that it is linked once. Each test makes clusters of its own and removes them.

mod clients;
mod demo;
mod helm;
mod images;
mod kill;
mod separate;
mod upstream;
mod walk;
mod wrong;
