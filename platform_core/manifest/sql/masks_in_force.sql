-- masks_in_force: the mask that counts for each series of one site and target: the adjudicator's, else the latest.
--
-- reads    core__label
--          label_in_force(site VARCHAR, series_key VARCHAR, value VARCHAR)  a mask that says anything else is left out
-- params   $site VARCHAR
--          $target VARCHAR
--          $adjudicator VARCHAR  reader whose mask stands above all others
-- returns  series_key VARCHAR, mask_uri VARCHAR, one row per series, in key order

SELECT series_key, mask_uri
FROM core__label
JOIN label_in_force USING (site, series_key, value)
WHERE site = $site AND target = $target AND mask_uri IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY series_key
    ORDER BY reader = $adjudicator DESC NULLS LAST, run DESC, labelled_on DESC NULLS LAST, reader NULLS LAST, mask_uri
) = 1
ORDER BY series_key
