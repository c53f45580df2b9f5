//! Drawing a result on its image.
