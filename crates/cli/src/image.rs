//! `tiphys image`: the machine's image store by hand.
