ApusBench.main()
