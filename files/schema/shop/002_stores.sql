-- Several stores in one database. A statement sees and writes the rows of one store, the one that the setting shop.store names:
--   SET shop.store = '2'
-- '*' is for services that work for all of them. Where nothing is set it is the only store there is; with two, nothing is seen.
CREATE SCHEMA shop;

CREATE TABLE shop.stores (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    currency char(3) NOT NULL DEFAULT 'EUR' CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO shop.stores (name) VALUES ('main');

CREATE FUNCTION shop.all_stores() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(current_setting('shop.store', true), '') = '*'
$$;

CREATE FUNCTION shop.current_store() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        nullif(nullif(current_setting('shop.store', true), ''), '*')::bigint,
        (SELECT min(id) FROM shop.stores HAVING count(*) = 1)
    )
$$;

-- For each table that has a store_id. FORCE: the role that owns the tables is the one that the services use.
CREATE PROCEDURE shop.isolate(VARIADIC tables text[]) LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        EXECUTE format('ALTER TABLE shop.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE shop.%I FORCE ROW LEVEL SECURITY', name);
        -- SELECT: asked once for a statement, not for each row.
        EXECUTE format('CREATE POLICY store ON shop.%I USING ((SELECT shop.all_stores()) OR store_id = (SELECT shop.current_store()))',
            name);
    END LOOP;
END
$$;

ALTER TABLE public.orders SET SCHEMA shop;
ALTER TABLE public.order_items SET SCHEMA shop;

ALTER TABLE shop.orders
    ADD COLUMN store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    ADD COLUMN status text NOT NULL DEFAULT 'new'
        CHECK (status IN ('new', 'paid', 'packed', 'shipped', 'delivered', 'cancelled', 'refunded')),
    DROP CONSTRAINT orders_source_order_id_key,
    ADD CONSTRAINT orders_source_order_id_key UNIQUE (store_id, source, order_id),
    ADD CONSTRAINT orders_of_store UNIQUE (store_id, id);

-- The store is part of every reference: a row cannot point into another one's.
ALTER TABLE shop.order_items
    ADD COLUMN store_id bigint NOT NULL DEFAULT shop.current_store(),
    DROP CONSTRAINT order_items_order_id_fkey,
    ADD CONSTRAINT order_items_order FOREIGN KEY (store_id, order_id) REFERENCES shop.orders (store_id, id) ON DELETE CASCADE;

CALL shop.isolate('orders', 'order_items');
