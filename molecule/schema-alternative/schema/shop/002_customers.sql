-- What a shop adds to ours: a table of its own that refers to them.
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_order bigint NOT NULL REFERENCES orders,
    email text NOT NULL UNIQUE
);
