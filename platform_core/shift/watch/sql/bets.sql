-- bets: what every bet has won over each full block of ranks.
--
-- reads    ranked(feature VARCHAR, sequence BIGINT, observed_on DATE, rank DOUBLE)
--          stream(feature VARCHAR, size BIGINT, n_settled BIGINT, kit INTEGER)
--                 ranks per block, blocks that are settled, and which bets are laid
--          wave(kit INTEGER, bet VARCHAR, frequency INTEGER, strength DOUBLE)  1 + strength cos(frequency pi rank)
--          step(kit INTEGER, bet VARCHAR, n_bins INTEGER, bin INTEGER, height DOUBLE)  mean height is 1
-- returns  feature VARCHAR, block BIGINT, bet VARCHAR
--          log_won DOUBLE  sum of the logarithms of what the bet returns on 1
--          first_on DATE, last_on DATE  days of the block's first and last rank
--          in order of feature, block and bet; a block that is not full yet is left out
-- range    (-inf, inf) nats; expected at or below 0 while nothing changes
-- source   Vovk 2019, arXiv:1906.09256, section 4: betting functions integrate to 1

WITH

-- ranks that are not settled yet, with their block
placed AS (
    SELECT feature, sequence, observed_on, rank, sequence // size AS block, size, kit
    FROM ranked
    JOIN stream USING (feature)
    WHERE sequence >= n_settled * size
    QUALIFY count(*) OVER (PARTITION BY feature, block) = size
),

-- what each bet returns on each rank
won AS (
    SELECT feature, block, sequence, observed_on, bet, 1 + strength * cos(frequency * pi() * rank) AS factor
    FROM placed
    JOIN wave USING (kit)
    UNION ALL
    SELECT feature, block, sequence, observed_on, bet, height AS factor
    FROM placed
    JOIN step USING (kit)
    WHERE bin = least(CAST(floor(rank * n_bins) AS INTEGER), n_bins - 1)
)

SELECT
    feature,
    block,
    bet,
    sum(ln(factor) ORDER BY sequence) AS log_won,
    arg_min(observed_on, sequence) AS first_on,
    arg_max(observed_on, sequence) AS last_on
FROM won
GROUP BY feature, block, bet
ORDER BY feature, block, bet
