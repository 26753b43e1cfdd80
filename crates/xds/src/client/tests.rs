mod delta;
mod sotw;
