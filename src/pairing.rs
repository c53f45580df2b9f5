//! Pairing colour and depth by stamp.
