-- Sample data of one store: 100 products in 10 categories with their stock, 50 customers, 200 orders. The same each time, and once: a
-- second run adds nothing. For psql, with `store` set to the store's name; it prints how many orders were added.
BEGIN;

-- As the tables' owner, so that the store's own rules hold for what is written here.
SET LOCAL ROLE shop;
-- A cast that cannot be made is what ends the script with these words.
SELECT format('store %s is not known: it is made when an endpoint names it', :'store')::bigint
WHERE NOT EXISTS (SELECT FROM shop.stores WHERE name = :'store');
SELECT set_config('shop.store', id::text, true) AS store_id FROM shop.stores WHERE name = :'store' \gset
SELECT count(*) AS before FROM shop.orders \gset

WITH categories (number, name, things) AS (
    VALUES (0, 'Mugs', 'mug'), (1, 'Shirts', 'shirt'), (2, 'Posters', 'poster'), (3, 'Candles', 'candle'), (4, 'Bags', 'bag'),
        (5, 'Notebooks', 'notebook'), (6, 'Cushions', 'cushion'), (7, 'Caps', 'cap'), (8, 'Stickers', 'sticker set'), (9, 'Plants', 'plant')
), words AS (
    SELECT * FROM unnest(ARRAY['Amber', 'Birch', 'Copper', 'Dune', 'Elder', 'Fjord', 'Granite', 'Harbour', 'Ivory', 'Juniper'])
        WITH ORDINALITY AS list (word, number)
)
INSERT INTO shop.products (handle, title, category, description, status)
SELECT format('sample-%s', lpad((categories.number * 10 + words.number)::text, 3, '0')), format('%s %s', words.word, things), name,
    format('A sample: the %s %s.', lower(words.word), things), 'active'
FROM categories CROSS JOIN words ORDER BY 1
ON CONFLICT (store_id, handle) DO NOTHING;

INSERT INTO shop.variants (product_id, sku, price_cents, currency)
SELECT id, upper(handle), 490 + 350 * (right(handle, 3)::integer % 13), (SELECT currency FROM shop.stores WHERE stores.id = store_id)
FROM shop.products WHERE handle LIKE 'sample-%' AND store_id = shop.current_store() ORDER BY handle
ON CONFLICT (store_id, sku) DO NOTHING;

-- Every tenth is sold out.
INSERT INTO shop.inventory (variant_id, quantity)
SELECT id, CASE WHEN right(sku, 1) = '0' THEN 0 ELSE 5 + right(sku, 3)::integer % 40 END
FROM shop.variants WHERE sku LIKE 'SAMPLE-%' AND store_id = shop.current_store()
ON CONFLICT (store_id, variant_id, location) DO NOTHING;

INSERT INTO shop.customers (email, name, address)
SELECT format('customer%s@example.com', number), format('Sample Customer %s', number),
    jsonb_build_object('city', (ARRAY['Berlin', 'Hamburg', 'Wien', 'Basel', 'Graz'])[1 + number % 5], 'zip', 10000 + number)
FROM generate_series(1, 50) AS number
ON CONFLICT (store_id, lower(email)) DO NOTHING;

-- Order n has n % 3 + 1 lines; three in four are paid.
WITH lines AS (
    SELECT number, line, 'SAMPLE-' || lpad((1 + (number * 7 + line * 31) % 100)::text, 3, '0') AS sku, 1 + (number + line) % 3 AS quantity
    FROM generate_series(1, 200) AS number CROSS JOIN LATERAL generate_series(1, number % 3 + 1) AS line
), priced AS (
    SELECT lines.*, price_cents, currency FROM lines JOIN shop.variants USING (sku) WHERE store_id = shop.current_store()
), sums AS (
    SELECT number, sum(quantity * price_cents)::bigint AS total, min(currency) AS currency,
        jsonb_agg(jsonb_build_object('sku', sku, 'quantity', quantity, 'price_cents', price_cents) ORDER BY line) AS items
    FROM priced GROUP BY number
), saved AS (
    INSERT INTO shop.orders (source, order_id, total_cents, currency, status, customer_id, received_at, raw)
    SELECT 'sample', format('S-%s', number), total, sums.currency,
        (ARRAY['new', 'paid', 'shipped', 'delivered'])[1 + number % 4],
        customers.id, now() - make_interval(hours => 3 * number),
        jsonb_build_object('source', 'sample', 'order_id', format('S-%s', number), 'items', items)
    FROM sums JOIN shop.customers ON lower(email) = format('customer%s@example.com', 1 + number % 50)
        AND customers.store_id = shop.current_store()
    ON CONFLICT (store_id, source, order_id) DO NOTHING
    RETURNING id, order_id
)
INSERT INTO shop.order_items (order_id, line, sku, quantity, price_cents)
SELECT saved.id, line, sku, quantity, price_cents FROM saved JOIN priced ON saved.order_id = format('S-%s', priced.number);

INSERT INTO shop.payments (order_id, provider, reference, amount_cents, currency, status, at)
SELECT id, 'sample', order_id, total_cents, currency, 'paid', received_at
FROM shop.orders WHERE source = 'sample' AND status <> 'new' AND store_id = shop.current_store()
ON CONFLICT (store_id, provider, reference) DO NOTHING;

INSERT INTO shop.shipments (order_id, carrier, tracking_number, status, shipped_at, delivered_at)
SELECT id, 'sample', 'T-' || order_id, CASE status WHEN 'shipped' THEN 'in_transit' ELSE 'delivered' END,
    received_at + interval '1 day', CASE WHEN status = 'delivered' THEN received_at + interval '3 days' END
FROM shop.orders WHERE source = 'sample' AND status IN ('shipped', 'delivered') AND store_id = shop.current_store()
ON CONFLICT (store_id, carrier, tracking_number) DO NOTHING;

SELECT count(*) - :before FROM shop.orders;

COMMIT;
