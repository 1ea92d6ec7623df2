module postrider/drivers

go 1.21

require github.com/jackc/pgx/v5 v5.13.0
