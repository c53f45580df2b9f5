//! Which candidate the words mean.
