//! Ray-cast RGB-D tabletop scenes with exact answers.
