//! `migrate image show`: what is in an image, without the program that it is of.
